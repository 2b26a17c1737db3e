"""Topics of `dsmt help`, and an example or more of each command. A test parses every example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

EXAMPLES: Final[Mapping[str, list[str]]] = {
    "up": ["dsmt up --nodes 3 --detach"],
    "down": ["dsmt down", "dsmt down --reason 'new disk'"],
    "apply": ["dsmt example > web.yaml", "dsmt apply web.yaml --wait=2m --reason JIRA-790", "dsmt apply services/"],
    "plan": ["dsmt plan web.yaml", "dsmt apply web.yaml --plan p-5c1e22aa"],
    "whatif": [
        "dsmt whatif --kill n2 --kill n3",
        "dsmt whatif --kill 'minus(all_nodes, good)' --json",
        "dsmt whatif --spec web.yaml --drain n1",
    ],
    "diff": ["dsmt diff web.yaml --exit-code"],
    "get": ["dsmt get web > web.yaml"],
    "status": ["dsmt status", "dsmt status web", "dsmt status --local"],
    "ps": ["dsmt ps --problems", "dsmt ps web/app", "dsmt ps -l tier=front --json", "dsmt ps --local"],
    "services": ["dsmt services"],
    "nodes": ["dsmt nodes"],
    "node drain": ["dsmt node drain n2 --deadline 10m --reason 'new kernel'", "dsmt node include n2"],
    "node add": [
        "dsmt node add root@web-1 root@web-2 --label zone=a",
        "dsmt node add ops@10.0.0.7 --user --name db-1",
        "dsmt node add web-3 --roles broker,controller,node",
    ],
    "node remove": ["dsmt node remove n3 --reason 'sold'", "dsmt node remove root@web-1 --yes"],
    "node show": ["dsmt node show n2"],
    "bus migrate": ["dsmt bus migrate nats", "dsmt bus migrate --cut"],
    "token create": ["dsmt token create --ttl 10m", "dsmt token create --name 'web-*' --label zone=a --reason 'rack 4'"],
    "token revoke": ["dsmt token revoke 5f3a91c2 --reason 'not needed'"],
    "join": ["dsmt join TOKEN", "dsmt join - --name web-4 --label zone=a", "dsmt join --address 10.0.0.7"],
    "history": ["dsmt history web"],
    "rollback": ["dsmt rollback web", "dsmt rollback web --to r3 --wait"],
    "scale": ["dsmt scale web/app 5 --wait"],
    "stop": [
        "dsmt stop web/app/1 --reason 'new disk'",
        "dsmt start web/app/1",
        "dsmt stop web/app/1 --local --reason 'it writes nonsense, and no broker answers'",
    ],
    "start": ["dsmt start web/app/1 --wait", "dsmt start web/app/1 --local"],
    "restart": ["dsmt restart web --wait"],
    "retry": ["dsmt retry web/app/1 --wait=30s"],
    "move": ["dsmt move web/app/1 --to n3", "dsmt move db/pg/0 --accept-data-loss"],
    "remove": ["dsmt remove web --yes", "dsmt remove web --purge --reason JIRA-81"],
    "wait": ["dsmt wait web --for ready --timeout 1m"],
    "why": ["dsmt why web/app/1", "dsmt why node/n3"],
    "why-not": ["dsmt why-not web/app/1"],
    "logs": [
        "dsmt logs web/app/1 -f",
        "dsmt logs web/app/1 --previous",
        "dsmt logs web/app/1 --revision r2",
        "dsmt logs web --local -f",
    ],
    "tail": ["dsmt tail service/web/", "dsmt tail -n 20 --no-follow"],
    "nodeset set": ["dsmt nodeset set good 'minus(all_nodes, failed)' --reason 'no broken ones'"],
    "nodeset use": ["dsmt nodeset use web/app good"],
    "brake hold": ["dsmt brake hold --reason 'new switches'", "dsmt brake release"],
    "export": ["dsmt export history.dsmt", "dsmt verify history.dsmt", "dsmt export today.dsmt --since 24h"],
    "operator add": ["dsmt operator add bob", "dsmt operator add bob --into bob-2"],
    "completion": ["dsmt completion bash > ~/.local/share/bash-completion/completions/dsmt"],
}
"""By command."""

TOPICS: Final[Mapping[str, str]] = {
    "target": (
        "what a command is about: a service, a component or an instance\n\n"
        "  web          every instance of the service web\n"
        "  web/app      every instance of its component app\n"
        "  web/app/0    one instance\n\n"
        "Names are never shortened. `dsmt why` also takes node/n1, broker/b1, controller/c1 and an event's id."
    ),
    "states": (
        "what an instance is doing, and how a service and the realm are\n\n"
        "  waiting      it has no node yet, or its node has not answered\n"
        "  installing, starting, running, stopping, stopped, gone    what the words say\n"
        "  backoff      it failed, and dsmt tries it again soon\n"
        "  parked       it failed often, and dsmt tries it again later; dsmt retry does it now\n"
        "  failed       it failed, and `restart` allows no further try\n"
        "  done         it has ended with 0, and does not run again\n"
        "  lost         its node is dead, or its agent has been silent for too long\n\n"
        "A service is ok, starting (nothing has gone wrong so far), degraded (some of it is ready, or may be),\n"
        "down (none of it is), held or removing. The realm is ok when none of them is starting, degraded or down,\n"
        "and nothing else is wrong: what waits for ok has waited for every service. An instance with\n"
        "`restart: always` has failed when it ends, even with 0: it is in backoff, and serves nobody until it runs\n"
        "again. Give a program that ends `restart: on_failure` or `never`."
    ),
    "placeholders": (
        "what may stand in braces in a service file\n\n"
        "  {address} {port.NAME}       the address where its ports listen, and the number of one port\n"
        "  {directory} {data}          the instance's own directory, and the directory that outlives it (data: true)\n"
        "  {service} {component} {index} {instance}    web, app, 0, and web/app/0\n"
        "  {node} {node.label.KEY}     where it runs, and a label of that node;    {label.KEY} one of the service\n"
        "  {revision}                  the number of the revision with which it was started\n"
        "  {{ }}                       literal braces\n\n"
        "dsmt fills them into commands, into env, and into files with `template: true`."
    ),
    "exit-codes": (
        "what a command's exit code means\n\n"
        "  0    it is done, or was so already\n"
        "  1    it failed, or was rolled back; or the answer to a question was no\n"
        "  2    the command line or a file is wrong, or lacks an option or a yes; nothing was done\n"
        "  3    a wait timed out; what was asked for goes on\n"
        "  4    refused: it is typed right, but what there is now stands against it; nothing was done\n"
        "  5    there is no such thing\n"
        "  6    with --exit-code: it differs, or not all is well\n"
        "  7    no broker answers\n"
        "  130  interrupted by Ctrl-C or SIGTERM; nothing was undone"
    ),
    "times": (
        "how times and spans are written\n\n"
        "  10s 5m 1h30m 7d    a span, as in --wait=30s\n"
        "  10m                with --since: that long ago;    14:05 today or yesterday;    2026-11-20T14:05:00Z"
    ),
    "placement": (
        "which node an instance is placed on, and how to say it\n\n"
        "  nodes: union(n1, n2)    in the service file: these may have it; or a set's name; by default all\n"
        "  instances: each_node    one on each of them;    reserve: {memory: 2GiB}    what must be free there\n\n"
        "  Of those that are alive and have room: the fewest of its component, then the fewest, then the most memory.\n\n"
        "  dsmt plan web.yaml            says beforehand where each instance would go, and why\n"
        "  dsmt why-not web/app/0        says why each node does not take it\n"
        "  dsmt help nodesets            says how sets of nodes are written"
    ),
    "nodesets": (
        "how sets of nodes are written\n\n"
        "  all_nodes, failed, n1, or a set's name; minus(a, b), union(a, b), intersect(a, b), limit(a, 3)\n\n"
        "  dsmt nodeset set good 'minus(all_nodes, failed)'\n"
        "  dsmt nodeset use web/app good"
    ),
    "environment": (
        "what dsmt reads from the environment, and what a service finds there\n\n"
        "  DSMT_HOME          where a realm's keys, history and data are; as --home\n"
        "  DSMT_BUS           the brokers to connect to: dsmt://HOST:PORT,...; as --bus\n"
        "  XDG_STATE_HOME     where DSMT_HOME is by default: in its directory dsmt\n"
        "  XDG_CACHE_HOME     where wheels for other machines are kept: in dsmt/wheels\n"
        "  SUDO_USER          who has typed dsmt stop --local as root by sudo\n"
        "  NO_COLOR           no colours, even on a terminal;    TERM=dumb does the same\n"
        "  _DSMT_COMPLETE     set by what dsmt completion prints\n\n"
        "A program of a service, its commands and its exec checks find\n\n"
        "  DSMT_SERVICE DSMT_COMPONENT DSMT_INDEX DSMT_INSTANCE    web, app, 0, and web/app/0\n"
        "  DSMT_NODE DSMT_REVISION    where it runs, and the number of the revision with which it was started\n"
        "  DSMT_DATA                  the directory that outlives it (data: true)\n"
        "  PORT PORT_NAME             the number of its first port, and of the one that is called NAME\n"
        "  DSMT_TREE                  by which dsmt finds again what it has started: leave it as it is\n\n"
        "and what `inherit_env` and `env` give them."
    ),
}
"""By word; the first line is what the list of words shows."""
