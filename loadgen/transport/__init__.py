"""How a request travels: HTTP/2 channel on gevent, grpcio channel."""
