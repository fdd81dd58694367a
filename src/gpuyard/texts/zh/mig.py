"""MIG：由硬件切分的显卡。"""

TEXTS: dict[str, str] = {
    "error.mig_one_slice": "一个程序只能在一个 MIG 实例中计算，而此请求要 {model} 的 {count} 个切片，该型号的卡处于 MIG 模式：请只要一个切片，或换一种型号。",
    "error.mig_too_large": "{model} 没有这么大的 MIG 实例：最大的是 {largest}，有 {memory}（规格 {offer}）。关闭 MIG 模式的卡才能整卡出租。",
    "error.mig_not_there": "{model} 没有 MIG 模式：请去掉 `:mig`，或选择 H100、A100 之类的卡。",
    "error.mig_place_taken": "卡 {card} 的位置 {place} 已被另一个 MIG 实例占用（{reason}）；会再次尝试启动。",
    "error.mig_unavailable": "目前无法在卡 {card} 上创建 MIG 实例 {place}：{reason}。",
    "error.mig_no_containers": "{model} 处于 MIG 模式，这里只有进程能得到 MIG 实例：请不要指定镜像，或换一种型号。",
    "reason.mig_no_place": "{node}：处于 MIG 模式的卡（{count} 块）上没有位置再放一个 {profile} 实例",
    "reason.mig_too_large": "{node}：其卡处于 MIG 模式，最大的实例是 {largest}，有 {memory}",
    "reason.mig_one_slice": "{node}：其卡处于 MIG 模式，一个程序只能得到一个切片，而不是 {count} 个",
    "reason.mig_no_containers": "{node}：其卡处于 MIG 模式，容器得不到 MIG 实例",
    "why.scheduler.mig": "它得到该卡的一个 MIG 实例：满足请求的最小一种，放在给其他人留下最多空间的位置。",
    "doctor.mig.ok": "{cards} 块卡上的切片由 MIG 实例保证：每块卡都在一个实例中试运行过程序{detail}。",
    "doctor.mig.missing": "处于 MIG 模式的卡不出租：{detail}。",
    "doctor.mig_mode.ok": "{model} {card} 处于 MIG 模式：其切片是 {profiles} 的实例；现有 {instances} 个。用 `nvidia-smi -i {card} -mig 0` 可关闭该模式以整卡出租。",
    "doctor.mig_simulated.ok": "{model} 处于 MIG 模式：其切片是 {profiles} 的实例。",
    "guarantee.mig_held": "由显卡自身按驱动的设置把实例限制在其显存、多处理器和缓存份额内（MIG）；已在此卡上试过。",
    "guarantee.mig_emulated": "此卡是仿真的，其驱动像 MIG 一样把实例限制在其显存和多处理器内。",
    "guarantee.mig_not_held": "此卡处于 MIG 模式，但无法在其上创建或试用实例：不出租。算力场启动时会试验。",
    "guarantee.mig_no_containers": "此卡处于 MIG 模式，容器得不到 MIG 实例。",
    "guarantee.mig_shared": "功耗和 PCIe 链路由该卡的所有实例共享，整卡失效也会影响所有实例。",
}
