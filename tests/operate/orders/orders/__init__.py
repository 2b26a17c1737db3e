"""Takes orders over HTTP, keeps them in PostgreSQL, counts them in Redis, and has a worker that tells them by MQTT."""

import os
import time

import psycopg2

TABLE = "CREATE TABLE IF NOT EXISTS orders (id text PRIMARY KEY, worked boolean NOT NULL DEFAULT false)"


def database():
    """A connection, once there is one."""
    while True:
        try:
            connection = psycopg2.connect(host="127.0.0.1", port=os.environ["DATABASE"], user="postgres", connect_timeout=2)
            with connection, connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(1)")
                cursor.execute(TABLE)
        except psycopg2.Error as error:
            print("no database yet:", error, flush=True)
            time.sleep(0.2)
        else:
            return connection
