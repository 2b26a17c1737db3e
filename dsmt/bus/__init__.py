"""The bus: rules that are values in and values out, the shells of broker and client, and rooms that touch the outside."""
