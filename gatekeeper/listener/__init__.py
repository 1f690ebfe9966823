"""What reaches us by HTTP: parse it strictly, answer it usefully."""
