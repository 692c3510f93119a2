//! The JSON Schema of a line, made from the same types that are printed.
//!
//! Must not know: how a line is spelled. `upstream-trace/schema.json` is this, committed, for readers of the repository.

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};

use crate::{
    doctor::Report,
    explain::report::{Explained, Explanation},
    record::{Connection, Event, Stats, StrayReset},
};

/// Draft 2020-12. Any line is exactly one of the types, told apart by `type`; fields may be added within v1.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut generator = SchemaGenerator::new(settings);
    let lines = [
        generator.subschema_for::<Connection<'_>>(),
        generator.subschema_for::<StrayReset<'_>>(),
        generator.subschema_for::<Event<'_>>(),
        generator.subschema_for::<Stats>(),
        generator.subschema_for::<Explanation<'_>>(),
        generator.subschema_for::<Explained>(),
        generator.subschema_for::<Report>(),
    ];
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of upstream-trace",
        "oneOf": lines,
        "$defs": generator.take_definitions(true),
    })
}

/// As `upstream-trace schema` prints it.
pub fn pretty() -> String {
    format!("{:#}\n", schema())
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use proptest::prelude::*;

    use super::*;
    use crate::output::{json, samples};

    fn validator() -> jsonschema::Validator {
        jsonschema::options()
            .should_validate_formats(true)
            .build(&schema())
            .unwrap()
    }

    fn line<T>(record: &T, encode: fn(&T, &mut [u8]) -> Option<usize>) -> Value {
        let mut room = vec![0; 1 << 16];
        let len = encode(record, &mut room).unwrap();
        serde_json::from_slice(&room[..len]).unwrap()
    }

    #[test]
    fn committed_file_is_fresh() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema.json");
        if env::var_os("UPDATE_SCHEMA").is_some() {
            fs::write(&path, pretty()).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == pretty(),
            "schema.json is stale: run the test with UPDATE_SCHEMA=1"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_line_is_valid(
            connection in samples::connections(),
            reset in samples::resets(),
            event in samples::events(),
            stats in samples::stats(),
        ) {
            let validator = validator();
            for value in [
                line(&connection, json::connection),
                line(&reset, json::reset),
                line(&event, json::event),
                line(&stats, json::stats),
            ] {
                let errors: Vec<String> =
                    validator.iter_errors(&value).map(|error| error.to_string()).collect();
                prop_assert!(errors.is_empty(), "{errors:?}\n{value}");
            }
        }
    }

    #[test]
    fn what_the_contract_forbids_is_invalid() {
        let validator = validator();
        let good = line(&samples::healthy(), json::connection);
        assert!(validator.is_valid(&good));
        let mut more = good.clone();
        more["added_later"] = json!(1);
        assert!(validator.is_valid(&more), "fields may be added");

        for (field, value) in [
            ("schema", json!("upstream-trace/2")),
            ("type", json!("other")),
            ("verdict", json!("fine")),
            ("verdict", json!(null)),
            ("time", json!("2026-11-21T11:34:03Z")),
            ("local", json!({ "address": "localhost", "port": 1 })),
            ("local", json!({ "address": "::1", "port": 65_536 })),
            (
                "timeline",
                json!([{ "at_us": 1, "event": "state", "from": null }]),
            ),
            ("duration_us", json!(-1)),
        ] {
            let mut bad = good.clone();
            bad[field] = value;
            assert!(!validator.is_valid(&bad), "{field}: {}", bad[field]);
        }
        let names: Vec<String> = good.as_object().unwrap().keys().cloned().collect();
        for name in names {
            let mut bad = good.clone();
            bad.as_object_mut().unwrap().remove(&name);
            assert!(!validator.is_valid(&bad), "without {name}");
        }
    }
}
