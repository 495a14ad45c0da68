-- A row that an index shows by what changed cannot be updated in place: with changed_at in an index, every answer that an
-- order heard was entered in all of them anew. Those that it is for are few, and can be sorted when they are read.
DROP INDEX orders_settled;
CREATE INDEX orders_settled ON orders (order_id) WHERE settled AND state = 'confirmed';
