use std::sync::Mutex;

use super::*;
use crate::demo::engine::Engine;

const AGE: Duration = Duration::from_millis(300);

/// A name whose address may change.
#[derive(Clone)]
struct Moving(Arc<Mutex<SocketAddr>>);

impl Moving {
    fn to(&self, engine: &Engine) {
        *self.0.lock().unwrap() = engine.address();
    }

    fn resolver(&self) -> Resolver {
        let here = self.clone();
        Resolver::new(tower::service_fn(move |name: Name| {
            assert_eq!(name.as_str(), "engine.test");
            let address = *here.0.lock().unwrap();
            async move { Ok(vec![address].into_iter()) }
        }))
    }
}

fn client(name: &Moving) -> EngineClient {
    let settings = ClientSettings {
        connect: Duration::from_secs(5),
        idle_connection: Duration::from_mins(1),
        connection_age: AGE,
        body_idle: Duration::from_mins(1),
        roots: None,
        identity: None,
        workers: 0,
    };
    // Without a port in it, that of the address is taken.
    let base = Uri::from_static("http://engine.test");
    EngineClient::resolving(name.resolver(), &[base], Nodes::default(), &settings).unwrap()
}

async fn ask(client: &EngineClient) {
    let request = Request::get("/engine-rest/version").body(Body::empty());
    let answer = client.clone().oneshot(request.unwrap()).await.unwrap();
    // Its connection is free again when its body has ended.
    let _ = http_body_util::BodyExt::collect(answer.into_body()).await;
}

#[tokio::test]
async fn a_change_of_the_engines_address_is_followed() {
    let (old, new) = (
        Engine::start().await.unwrap(),
        Engine::start().await.unwrap(),
    );
    let name = Moving(Arc::new(Mutex::new(old.address())));
    let client = client(&name);
    ask(&client).await;
    assert_eq!((old.request_count(), new.request_count()), (1, 0));

    name.to(&new);
    let moved = Instant::now();
    while new.request_count() == 0 {
        ask(&client).await;
        assert!(
            moved.elapsed() < Duration::from_mins(1),
            "it is never followed"
        );
    }
    let before = old.request_count();
    for _ in 0..20 {
        ask(&client).await;
    }
    assert_eq!(old.request_count(), before, "nothing goes where it was");
    assert_eq!(old.connections(), 1, "the connection was used for its time");
}
