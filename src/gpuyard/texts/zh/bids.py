"""关于竞价出价的文字。"""

TEXTS: dict[str, str] = {
    "error.bid_refused": "此出价不成立：{why}。",
    "word.why.not_spot": "最高价只用于竞价租约：请加上 --spot",
    "word.why.no_offer": "出价针对规格，请用 --offer 指明一个",
    "word.why.low": "{bid} 低于每小时 {least} {currency}，而这是此规格的切片在竞价下的最低价",
    "reason.outbid": "它的出价为每小时 {bid} {currency}，低于现行竞价 {price}",
    "why.change.outbid": "出价高于现行竞价，或不设最高价，就不会被挡住。",
    "cli.run.spot": "使用竞价：更便宜，但当他人需要显卡或价格超过出价时会被通知离开。",
    "cli.run.max_price": "与 --spot 合用：每个切片每小时最多付多少；不给出则为价目表的价格。",
}
