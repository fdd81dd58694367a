"""Words about bids on the spot market."""

TEXTS: dict[str, str] = {
    "error.bid_refused": "This bid cannot be: {why}.",
    "word.why.not_spot": "a highest price belongs to a lease on spot: add --spot",
    "word.why.no_offer": "bids are made for an offer, so name one with --offer",
    "word.why.low": "{bid} is below {least} {currency} an hour, the least that a slice of this offer ever costs on spot",
    "reason.outbid": "its bid of {bid} {currency} an hour is below the spot price of {price}",
    "why.change.outbid": "With a bid above the spot price, or with none, it would not be held back.",
    "cli.run.spot": "On spot: cheaper, and told to go when others need the cards or the price rises above your bid.",
    "cli.run.max_price": "With --spot: the most to pay for a slice an hour; the book's price where it is not given.",
}
