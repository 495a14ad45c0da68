-- Under what an order was placed, as it was written: one is told of an order there, and by that name.
ALTER TABLE recipients
    ADD buyer_name  bytea,      -- null where none was given, and for orders kept before
    ADD buyer_email bytea;
