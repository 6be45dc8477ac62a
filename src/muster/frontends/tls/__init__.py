"""The server's side of TLS over memory buffers."""
