-- Which count a measurement belongs to: within one, a window's units only grow, so that the larger figure is the better.
ALTER TABLE demand ADD COLUMN generation int NOT NULL DEFAULT 1;
