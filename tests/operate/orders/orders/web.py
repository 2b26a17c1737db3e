"""`PUT /orders/ID`: 201 once the order is committed, however often it is put."""

import os
import threading
from contextlib import suppress

import psycopg2
import redis

from orders import database

_here = threading.local()
_counter = redis.Redis(port=int(os.environ["COUNTER"]), socket_timeout=0.2, socket_connect_timeout=0.2)


def put(order):
    """Commit an order."""
    connection = getattr(_here, "connection", None) or database()
    _here.connection = connection
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO orders (id) VALUES (%s) ON CONFLICT DO NOTHING", (order,))
    except psycopg2.Error:
        _here.connection = None
        raise


def app(environ, start_response):
    """The WSGI application."""
    path = environ["PATH_INFO"]
    if environ["REQUEST_METHOD"] != "PUT" or not path.startswith("/orders/"):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"orders are taken here\n"]
    try:
        put(path.removeprefix("/orders/"))
    except psycopg2.Error as error:
        start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
        return [str(error).encode()]
    with suppress(redis.RedisError):
        _counter.incr("orders")
    start_response("201 Created", [("Content-Type", "text/plain")])
    return [b"taken\n"]
