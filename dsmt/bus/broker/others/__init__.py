"""What a broker has of the others: it reads them, asks them, and fills its depot from theirs."""
