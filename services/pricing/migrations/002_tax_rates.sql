-- The rate of a country and tax class on a day is the one with the latest valid_from up to it; 0 where there is none.
CREATE TABLE tax_rates (
    country    text NOT NULL, -- ISO 3166 alpha-2, of the destination
    tax_class  text NOT NULL,
    percent    numeric NOT NULL CHECK (percent BETWEEN 0 AND 100),
    valid_from date NOT NULL,
    PRIMARY KEY (country, tax_class, valid_from)
);

-- To begin with: standard rates, with the history that orders of the past need, and a few reduced ones.
-- A merchant's own are put over HTTP.
INSERT INTO tax_rates (country, tax_class, percent, valid_from) VALUES
    ('AT', 'standard', 20,   '1984-01-01'),
    ('BE', 'standard', 21,   '1996-01-01'),
    ('DE', 'standard', 16,   '1998-04-01'), ('DE', 'standard', 19, '2007-01-01'),
    ('DE', 'standard', 16,   '2020-07-01'), ('DE', 'standard', 19, '2021-01-01'),
    ('DE', 'reduced',  7,    '1983-07-01'), ('DE', 'reduced',  5,  '2020-07-01'), ('DE', 'reduced', 7, '2021-01-01'),
    ('DK', 'standard', 25,   '1992-01-01'),
    ('ES', 'standard', 16,   '1995-01-01'), ('ES', 'standard', 18, '2010-07-01'), ('ES', 'standard', 21, '2012-09-01'),
    ('FR', 'standard', 19.6, '2000-04-01'), ('FR', 'standard', 20, '2014-01-01'),
    ('FR', 'reduced',  5.5,  '1982-07-01'),
    ('GB', 'standard', 17.5, '1991-04-01'), ('GB', 'standard', 15, '2008-12-01'),
    ('GB', 'standard', 17.5, '2010-01-01'), ('GB', 'standard', 20, '2011-01-04'),
    ('GB', 'reduced',  5,    '1997-09-01'),
    ('IE', 'standard', 21,   '2010-01-01'), ('IE', 'standard', 23, '2012-01-01'),
    ('IE', 'standard', 21,   '2020-09-01'), ('IE', 'standard', 23, '2021-03-01'),
    ('IT', 'standard', 20,   '1997-10-01'), ('IT', 'standard', 21, '2011-09-17'), ('IT', 'standard', 22, '2013-10-01'),
    ('NL', 'standard', 19,   '2001-01-01'), ('NL', 'standard', 21, '2012-10-01'),
    ('NL', 'reduced',  6,    '1986-10-01'), ('NL', 'reduced',  9,  '2019-01-01'),
    ('PL', 'standard', 22,   '1993-07-05'), ('PL', 'standard', 23, '2011-01-01'),
    ('SE', 'standard', 25,   '1990-07-01');
