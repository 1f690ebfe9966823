"""WebSockets: opened, passed on both ways, metered by turn or message, settled and recorded."""
