"""AMQP 1.0 clients: devices, service clients, readers of events, and devices that are provisioned."""
