"""What operators do to a running service: look at its dead letters and have them applied, look at its outbox."""
