/// Crates compared, and what they stand on, with their versions.
const CRATES: [&str; 8] = [
    "tower-jwt-refresh",
    "tower-http",
    "tower",
    "http",
    "tokio",
    "cf-gears-toolkit-auth",
    "google-cloud-auth",
    "kube-client",
];

/// As the lock file of this build has them. (Of a crate that is there twice, all.)
pub fn of_peers() -> impl Iterator<Item = String> {
    let lock = include_str!("../Cargo.lock");
    let packages = lock.split("[[package]]").skip(1).filter_map(|package| {
        let mut lines = package.trim_start().lines();
        let name = lines.next()?.strip_prefix("name = ")?.trim_matches('"');
        let version = lines.next()?.strip_prefix("version = ")?.trim_matches('"');
        CRATES.contains(&name).then(|| format!("{name} {version}"))
    });
    packages
}
