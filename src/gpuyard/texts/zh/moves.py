"""Moves of running leases, and how much of the pool is leased."""

TEXTS: dict[str, str] = {
    "reason.moved": "它被迁移到其他显卡，正在那里启动。",
    "why.moved_blocked": "副本 {replica} 位于 {node}（{cards}）。它从 {start} 迁来，好让一个放不下的负载得以启动。",
    "why.moved_low_load": "副本 {replica} 位于 {node}（{cards}）。它在低负载时从 {start} 迁来，以腾空一个节点。",
    "why.moved_peak": "副本 {replica} 位于 {node}（{cards}）。共享显卡的时段结束后，它从 {start} 迁来，好让它与原处的租约各自独占整卡。",
    "why.moved_back": "副本 {replica} 位于 {node}（{cards}）。它本要迁往 {start}，在那里无法启动，因此回到原处。",
    "why.move_free": "迁移期间不计费：从要求结束到重新运行的时间不计，也不算一次新的启动。",
    "why.moving": "副本 {replica} 正从 {start} 迁往 {end}：目标已为它保留，工作保存后在那里继续。",
    "why.room_is_made": "正在为它腾出空间：{count} 个运行中的租约正迁往其他显卡。",
    "cli.up.moves_window": "何时可以通过迁移租约腾空节点，如 01:00-06:00（UTC）；none 表示从不。",
    "cli.up.moves_an_hour": "每小时最多迁移多少个租约；0 表示完全不迁移。",
    "cli.up.moves_of_tenant": "同一租户同时最多有多少个租约处于迁移中。",
    "cli.up.use_target": "资源池应租出多少（百分比）；与实际值并列显示。",
    "cli.column.pool": "已租出",
    "cli.column.moves": "迁移",
    "cli.column.saved": "节省的空闲功耗",
    "cli.status.pool": "{leased} % 的显卡，目标 {target} %；{nodes} 个节点中 {empty} 个为空",
    "cli.status.moves": "{on_the_way} 个进行中，24 小时内完成 {done} 个",
    "cli.status.saved": "{watts} W，来自迁移腾空的节点",
}
