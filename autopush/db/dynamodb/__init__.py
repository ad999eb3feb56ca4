"""The back end of clusters: DynamoDB, or what speaks its API (spec/storage)."""
