"""The server over HTTP: whom to trust, what to send, how each answer is judged."""
