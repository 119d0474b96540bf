"""The pure heart: what a download is and how it may move. No I/O, no clock, no async; time is always passed in."""
