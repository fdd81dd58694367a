"""The EC2 dialect: the query protocol, from a table of shapes."""
