//! YAML files: that they parse, and that compose files name what they have.

use std::fs;
use std::path::Path;

use saphyr::{LoadableYamlNode, YamlOwned};

use super::read;
use crate::Done;

/// Parses every YAML file below a folder but templates, which are none yet, and looks into compose files.
pub(super) fn check(folder: &Path) -> Done {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            if !path.ends_with("templates") {
                check(&path)?;
            }
            continue;
        }
        let name = path.to_string_lossy();
        if !name.ends_with(".yaml") && !name.ends_with(".schema.json") {
            continue;
        }
        let documents = parse(&read(&path)?).map_err(|why| format!("{name}: {why}"))?;
        for compose in documents.iter().filter(|document| document.contains_mapping_key("services")) {
            compose_names(compose).map_err(|why| format!("{name}: {why}"))?;
        }
    }
    Ok(())
}

/// The documents of a file. JSON is YAML.
pub(super) fn parse(text: &str) -> Result<Vec<YamlOwned>, String> {
    let documents = YamlOwned::load_from_str(text).map_err(|error| error.to_string())?;
    if documents.is_empty() { Err("it is empty".to_owned()) } else { Ok(documents) }
}

/// Every volume and every other service that a service names is there.
fn compose_names(compose: &YamlOwned) -> Done {
    let has = |part: &str, name: &str| {
        compose.as_mapping_get(part).is_some_and(|part| part.contains_mapping_key(name))
    };
    for (service, what) in entries(compose, "services") {
        let lines = |key: &str| strings(what.as_mapping_get(key));
        for volume in lines("volumes") {
            let name = volume.split(':').next().unwrap_or_default();
            if !name.starts_with(['.', '/']) && !has("volumes", name) {
                return Err(format!("{service} mounts the volume {name}, which is not there"));
            }
        }
        let after = entries(what, "depends_on").into_iter().map(|(name, _)| name);
        let beside = what.as_mapping_get("network_mode").and_then(|mode| mode.as_str());
        let beside = beside.and_then(|mode| mode.strip_prefix("service:")).map(str::to_owned);
        for other in after.chain(lines("depends_on")).chain(beside) {
            if !has("services", &other) {
                return Err(format!("{service} needs the service {other}, which is not there"));
            }
        }
    }
    Ok(())
}

/// The entries of a mapping below a key.
pub(super) fn entries<'a>(node: &'a YamlOwned, key: &str) -> Vec<(String, &'a YamlOwned)> {
    let mapping = node.as_mapping_get(key).and_then(|node| node.as_mapping());
    let name = |key: &YamlOwned| key.as_str().unwrap_or_default().to_owned();
    mapping.into_iter().flatten().map(|(key, value)| (name(key), value)).collect()
}

/// The texts of a list.
fn strings(node: Option<&YamlOwned>) -> Vec<String> {
    let items = node.and_then(|node| node.as_sequence()).into_iter().flatten();
    items.filter_map(|item| item.as_str()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Done {
        compose_names(&parse(text).expect("parses")[0])
    }

    #[test]
    fn what_does_not_parse_is_refused() {
        for text in ["", "a: [1", "a: 1\na: 2\n", "a: b: c"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_compose_file_names_what_it_has() {
        let fine = "services:\n  a: {volumes: ['v:/x', './y:/y'], depends_on: {b: {condition: c}}}\n  b: {network_mode: 'service:a'}\nvolumes: {v: }\n";
        assert_eq!(names(fine), Ok(()));
        for (one, other) in
            [("v:/x", "w:/x"), ("{b: {condition", "{c: {condition"), ("service:a", "service:c")]
        {
            assert!(names(&fine.replace(one, other)).is_err(), "{other}");
        }
        assert!(names("services: {a: {depends_on: [b]}}").is_err());
    }
}
