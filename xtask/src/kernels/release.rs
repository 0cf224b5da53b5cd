//! Selects the newest of Debian's kernel packages of a version. Pure.

const PREFIX: &str = "linux-image-";
const SUFFIX: &str = "-cloud-amd64";

/// The suffix of the package names, `6.1.0-56-cloud-amd64`, of the newest release of a version such as `6.1`. Point
/// releases replace each other in the archive, so no release is pinned here.
pub fn newest<'a>(version: &str, packages: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    packages
        .into_iter()
        .filter_map(|package| {
            let name = package.strip_prefix(PREFIX)?;
            let release = name.strip_suffix(SUFFIX)?;
            // Without a point after it, it is another version (7.20) or a package of no release (6.1).
            release.strip_prefix(version)?.strip_prefix('.')?;
            Some((numbers(release), name))
        })
        .max()
        .map(|(_, name)| name)
}

/// The packages of a kernel, some of which each Debian release has.
pub fn packages(release: &str) -> Vec<String> {
    // Debian 13 splits the first package.
    ["image", "base", "binary", "modules"]
        .iter()
        .map(|part| format!("linux-{part}-{release}"))
        .collect()
}

fn numbers(release: &str) -> Vec<u64> {
    release
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGES: [&str; 10] = [
        "linux-image-6.1-cloud-amd64",
        "linux-image-6.1.0-9-cloud-amd64",
        "linux-image-6.1.0-56-cloud-amd64",
        "linux-image-6.1.0-56-cloud-amd64-dbg",
        "linux-image-6.1.0-0.deb11.60-cloud-amd64",
        "linux-image-6.12.9+deb12-cloud-amd64",
        "linux-image-6.12.117+deb12-cloud-amd64",
        "linux-image-6.12.118+deb12-amd64",
        "linux-image-7.20.1+deb13-cloud-amd64",
        "linux-image-cloud-amd64",
    ];

    #[test]
    fn the_newest_release_of_a_version_is_taken() {
        assert_eq!(newest("6.1", PACKAGES), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(newest("6.12", PACKAGES), Some("6.12.117+deb12-cloud-amd64"));
    }

    #[test]
    fn versions_are_compared_completely() {
        assert_eq!(newest("7.2", PACKAGES), None);
        assert_eq!(newest("6", PACKAGES), Some("6.12.117+deb12-cloud-amd64"));
    }
}
