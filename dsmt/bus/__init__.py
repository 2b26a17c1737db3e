"""The bus: pure machines (floor 3), the broker's and client's shells and the adapters (floor 5)."""
