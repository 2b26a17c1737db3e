"""Members: who belongs to the realm by this home: brokers, controllers, nodes, operators, and their certificates."""
