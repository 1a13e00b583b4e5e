"""HTTP/2 that server and client share."""
