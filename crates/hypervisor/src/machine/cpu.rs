//! The processor of this host.

/// Name for manifests of a CPU model that shows guests what this processor is, so the processor is named with it.
pub(crate) fn host_cpu(model: &str) -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        info.lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default()
            .to_owned()
    };
    format!("{model}:{}:{}", field("model name"), field("flags"))
}
