"""A store on SQLite, and the tables that it is made of."""
