"""放置：各项得分、显卡如何共享以及何时共享。"""

TEXTS: dict[str, str] = {
    "error.invalid_weight": "“{value}”不是权重：请写 TERM=N，N 为不超过 {most} 的整数，TERM 为 {known} 之一。",
    "cli.up.sharing_window": "切片何时共享显卡，如 22:00-07:00（UTC）；其余时间，非竞价租约在有空卡时独占显卡。none 表示始终共享。",
    "error.exclusive_fraction": "不能独占一张卡的一部分：别人用不了的部分也须付费。请改要整卡（{offer}），或换一种 --sharing。",
    "error.sharing_unavailable": "这里的这些显卡不以 {mode} 方式共享：{reason}。",
    "word.reason.no_mps": "NVIDIA 多进程服务（MPS）并未管住其全部（由运营者以 `gpuyard up --mps` 启用）",
    "word.reason.only_mps": "NVIDIA 多进程服务（MPS）管住了其中一些，不让其他程序使用",
    "cli.run.sharing": "切片如何共享显卡；两种方式从不共用一张卡。time-slice：轮流使用；mps：同时使用；exclusive：不与任何人共享，须为整卡。",
    "cli.up.weight": "某一项在放置中的权重，如 watts=4；0 表示不计。可多次给出。",
    "cli.cards.pool": "已租出 {leased} % 的显卡；目标为 {target} %。",
    "reason.other_mode": "{node}：有空间的显卡上已有租约，目前不与此租约共享",
    "why.alone": "其显卡目前由它独占：在共享时段之外，非竞价租约在有空卡时获得整卡。",
    "why.term.lost": "预期请求损失的可用量",
    "why.term.waste": "无人可用的余量",
    "why.term.stranded_cpu": "没有显卡可配的处理器",
    "why.term.opened_node": "启用空节点",
    "why.term.order": "节点次序靠后",
    "why.term.tier": "显卡大于所需",
    "why.term.topology": "显卡间的距离",
    "why.term.watts": "增加的功耗",
    "why.term.price": "价格",
}
