"""The loopback interface: its ports, the server of one login, the pages that it shows."""
