"""A browser without a screen, for ``--browser``: it hands each address it is to open to the test.

``python tests/browser/stand_in.py PORT %s``. The person who sits at it is `desktop.Desktop`, in the
process of the test, which listens on PORT.
"""

import socket
import sys

if __name__ == "__main__":
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=10) as desktop:
        desktop.sendall(sys.argv[2].encode())
