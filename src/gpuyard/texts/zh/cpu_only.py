"""关于无卡实例与流出流量的文字。"""

TEXTS: dict[str, str] = {
    "error.cpu_only_refused": "无法不带显卡启动：{why}。",
    "word.why.not_instance": "只有实例可以；作业和服务需要其显卡",
    "word.why.on_spot": "竞价是显卡的价格；请按需启动",
    "word.why.no_price": "此算力场没有这项价格；由运营者在价目表中设置 cpu_only_per_hour",
    "error.cpu_only_switch": "{workload} 处于 {state}：请等它停止，再{wanted}显卡启动。",
    "word.wanted.with": "带",
    "word.wanted.without": "不带",
    "reason.no_cpu_only_price": "价目表已不再有无卡实例的价格",
    "cli.run.cpu_only": "不带显卡的实例，按无卡价格计费：用于拷贝数据或编辑文件。",
    "cli.start.cpu_only": "不带显卡启动，按无卡价格计费：用于拷贝数据或编辑文件。",
    "cli.price.beside": "显卡之外：不带显卡每小时 {cpu_only_per_hour}；停止时每小时 {stopped_per_hour}，磁盘每 GiB {storage_per_gib_hour}；容器发送每 GiB {egress_per_gib}。",
    "cli.column.sent": "已发送",
    "cli.ps.cpu_only": "{offer}（无卡）",
}
