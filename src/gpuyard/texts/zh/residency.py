"""Where data may lie."""

TEXTS: dict[str, str] = {
    "error.outside_residency": "{data}（驻留类别 {residency_class}）不能在区域 {region} 使用：{why}。",
    "word.why.other_class": "该区域属于其他类别；请选择仅位于其类别所含区域的显卡",
    "word.why.region_unclassed": "该区域不属于任何类别；管理员可用 `gpuyard geography residency` 添加",
    "word.reason.region_twice": "区域 {region} 已在其他类别中",
    "cli.geography.residency": "设置驻留类别的区域，数据只能在其间移动；不给区域则删除该类别；不给名称则显示数据所在。",
    "cli.geography.region": "区域，与节点所用名称相同；可重复。",
    "cli.up.region": "本机所在区域：在此写入的数据留在其驻留类别内。",
}
