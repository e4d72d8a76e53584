#!/usr/bin/env python3
"""A desktop program with a login button: Qt runs `cells-loopback login --json` and follows its events.

Needs PySide6 or PyQt6, and `cells-loopback` on the PATH:

    python desktop_qt.py files.example.com
"""

import json
import sys

try:
    from PySide6.QtCore import QProcess
    from PySide6.QtWidgets import QApplication, QLabel, QPushButton, QVBoxLayout, QWidget
except ImportError:
    from PyQt6.QtCore import QProcess
    from PyQt6.QtWidgets import QApplication, QLabel, QPushButton, QVBoxLayout, QWidget


class LoginWindow(QWidget):
    """One button that logs in, one that cancels, and a line that tells how it goes."""

    def __init__(self, arguments):
        super().__init__()
        self.setWindowTitle("Example")
        self.arguments = arguments
        self.status = QLabel("Not logged in")
        self.log_in = QPushButton("Log in", clicked=self.start)
        self.cancel = QPushButton("Cancel", clicked=self.stop, enabled=False)
        layout = QVBoxLayout(self)
        for widget in (self.status, self.log_in, self.cancel):
            layout.addWidget(widget)
        self.process = QProcess(self)
        self.process.readyReadStandardOutput.connect(self.read_events)
        self.process.finished.connect(self.finished)

    def start(self):
        """Start the login; the program needs no port, no server and no token of its own."""
        self.log_in.setEnabled(False)
        self.cancel.setEnabled(True)
        program = "cells-loopback"
        self.process.start(program, ["login", *self.arguments, "--json", "--app-name", "Example"])

    def stop(self):
        """SIGTERM ends a login cleanly: no listener and no changed session stays behind."""
        self.process.terminate()

    def read_events(self):
        """Follow the events, one JSON object a line; ignore the ones not known here."""
        while self.process.canReadLine():
            event = json.loads(bytes(self.process.readLine()))
            if event["event"] == "browser_opened":
                self.status.setText("Log in, in your browser …")
            elif event["event"] == "browser_failed":
                self.status.setText(f"No browser: {event['reason']}")
            elif event["event"] == "logged_in":
                self.status.setText(f"Logged in to {event['site']} as {event['user']}")
            elif event["event"] == "error":
                self.status.setText(f"{event['message']}\n{event['hint']}")

    def finished(self):
        """From now on `cells-loopback token` has a valid token, whenever this program needs one."""
        self.log_in.setEnabled(True)
        self.cancel.setEnabled(False)


def main():
    """Show the window; with --click press the button, and end when the login has ended."""
    application = QApplication(sys.argv[:1])
    arguments = [argument for argument in sys.argv[1:] if argument != "--click"]
    window = LoginWindow(arguments)
    window.show()
    if "--click" in sys.argv:
        window.process.finished.connect(lambda: (print(window.status.text()), application.quit()))
        window.log_in.click()
    return application.exec()


if __name__ == "__main__":
    sys.exit(main())
