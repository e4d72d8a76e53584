"""This process: its signals, its threads, its terminal, its memory."""
