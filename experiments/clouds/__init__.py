"""Point clouds: shapes, rigidity, scores, sparse springs."""
