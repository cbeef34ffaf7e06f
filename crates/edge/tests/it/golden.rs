//! Documents that earlier builds kept on disk.

#[test]
fn the_first_format_loads_for_ever() {
    let text = include_str!("golden/config-1.json");
    let config: edge::Config = serde_json::from_str(text).unwrap();
    assert_eq!(config.format, 1);
    // What is written today is what was written then.
    let today: serde_json::Value = serde_json::to_value(&config).unwrap();
    assert_eq!(
        today,
        serde_json::from_str::<serde_json::Value>(text).unwrap()
    );
}

#[test]
fn fields_that_nobody_knows_are_refused() {
    let text = include_str!("golden/config-1.json").replacen(
        "\"revision\"",
        "\"revisoin\": 1, \"revision\"",
        1,
    );
    let error = serde_json::from_str::<edge::Config>(&text).unwrap_err();
    assert!(error.to_string().contains("revisoin"), "{error}");
}
