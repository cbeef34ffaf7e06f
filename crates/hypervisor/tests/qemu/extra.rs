//! What only QEMU has.

use std::pin::Pin;

use crate::subject::Qemu;

type Run = for<'a> fn(&'a Qemu) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Tests by name.
pub(crate) const ALL: [(&str, Run); 1] =
    [("kvm_is_judged", |subject| Box::pin(kvm_is_judged(subject)))];

/// Whatever this host is: the verdict is reached in time, explained, and remembered.
async fn kvm_is_judged(subject: &Qemu) {
    let config = subject.config(Vec::new());
    let first = hypervisor::qemu::probe(&config).await.unwrap();
    println!("  {}: {}", first.version, first.kvm.explain());
    let began = std::time::Instant::now();
    assert_eq!(hypervisor::qemu::probe(&config).await.unwrap(), first);
    assert!(
        began.elapsed() < std::time::Duration::from_secs(2),
        "the verdict was not remembered"
    );
}
