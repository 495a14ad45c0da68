"""What the sandboxes of the outside world share: their database, webhooks, faults, refusals and HTTP manners."""
