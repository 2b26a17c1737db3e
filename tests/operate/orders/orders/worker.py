"""Works orders off, and tells how many by MQTT."""

import os
import subprocess
import time

import psycopg2

from orders import database

WORK = (
    "UPDATE orders SET worked = true WHERE id IN (SELECT id FROM orders WHERE NOT worked LIMIT 500 FOR UPDATE SKIP LOCKED)"
)


def main():
    """For ever."""
    while True:
        connection = database()
        try:
            while True:
                with connection, connection.cursor() as cursor:
                    cursor.execute(WORK)
                    count = cursor.rowcount
                if count:
                    tell = ["mosquitto_pub", "-h", "127.0.0.1", "-p", os.environ["BROKER"], "-t", "worked", "-m", str(count)]
                    subprocess.run(tell, check=False, timeout=5, stderr=subprocess.DEVNULL)
                time.sleep(0.2)
        except (psycopg2.Error, subprocess.TimeoutExpired) as error:
            print("again:", error, flush=True)


if __name__ == "__main__":
    main()
