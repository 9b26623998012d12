//! What describes the server: the OpenAPI document, metrics, health.

use super::world::World;

#[test]
fn the_openapi_document_names_every_route() {
    let document: serde_json::Value = serde_json::from_str(&shoal_api::Host::openapi()).unwrap();
    let mut routes: Vec<String> = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, what) in methods.as_object().unwrap() {
            let answers: Vec<&String> = what["responses"].as_object().unwrap().keys().collect();
            routes.push(format!("{} {path} {answers:?}", method.to_uppercase()));
        }
    }
    insta::assert_snapshot!("routes", routes.join("\n"));
    let schemas: Vec<&String> = document["components"]["schemas"].as_object().unwrap().keys().collect();
    insta::assert_debug_snapshot!("schemas", schemas);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_metrics_and_unknown_routes() {
    let world = World::start("", &[1]).await;
    let client = world.stranger().await;
    assert_eq!(client.health().await.unwrap().status, "ok");
    let get = async |path: &str| {
        let answer = reqwest::get(format!("{}{path}", world.url())).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, page) = get("/metrics").await;
    assert_eq!(status, 200);
    for line in ["shoal_arena_block ", "shoal_arena_queue 0", "shoal_arena_request_seconds_count"] {
        assert!(page.contains(line), "{line} is missing in\n{page}");
    }
    let (status, text) = get("/openapi.json").await;
    assert_eq!((status, text), (200, shoal_api::Host::openapi()));
    assert_eq!(get("/v1/nothing").await.0, 404);
    assert_eq!(get("/v1/submissions/1/code").await.0, 404);
    assert_eq!(get("/v1/submissions/x").await.0, 400);
    assert_eq!(get("/v1/submissions?count=nonsense").await.0, 400);
    // What is wrong with an address is a `Problem` that names the parameter, its value and what is allowed.
    for (path, names) in [
        ("/v1/submissions?count=nonsense", ["count=nonsense", "a whole number"]),
        ("/v1/submissions?filter=bogus", ["filter=bogus", "`mine`"]),
        ("/v1/submissions/0?units=maybe", ["units=maybe", "true or false"]),
        ("/v1/competitions?state=bogus", ["state=bogus", "`pending`, `active`"]),
        ("/v1/competitions?kind=bogus", ["kind=bogus", "`codec` or `program`"]),
        ("/v1/competitions?colour=red", ["unknown field `colour`", "`show_completed`"]),
        ("/v1/events?from=-1", ["from=-1", "a whole number"]),
        ("/v1/submissions/x", ["`x`", "u64"]),
    ] {
        let (status, text) = get(path).await;
        assert_eq!(status, 400, "{path}: {text}");
        let problem: shoal_api::model::Problem = serde_json::from_str(&text).unwrap();
        assert_eq!(problem.reason, "bad_request", "{path}");
        for name in names {
            assert!(problem.message.contains(name), "{path}: {}", problem.message);
        }
    }
    assert_eq!(get("/v1/competitions?state=pending&kind=codec").await.0, 200);
    assert_eq!(get("/v1/judge/work").await.0, 401);
    assert_eq!(get(&format!("/v1/blobs/{}", "0".repeat(64))).await.0, 404);
}
