"""A sandbox mail server: takes every mail, sends none on, shows what came, and fails on request."""
