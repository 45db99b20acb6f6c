//! An async handler may wait for the runtime's own timers, and others are served meanwhile.

use std::time::{Duration, Instant};

use shaddock::Reply;
use support::{Client, Event, builder, request};

#[test]
fn an_async_handler_waits_for_a_timer_of_the_runtime() {
    const WAIT: Duration = Duration::from_millis(200);
    let engine = builder(1)
        .async_handler("connector.play.wait", |_, _| async {
            glommio::timer::sleep(WAIT).await;
            Reply::json("waited")
        })
        .handler("connector.play.echo", |request, _| Reply::borrowed(request.body()))
        .start()
        .unwrap();
    let mut waiting = Client::ready(engine.local_addr());
    let mut served = Client::ready(engine.local_addr());
    let start = Instant::now();
    waiting.send(&request(1, "connector.play.wait", "{}"));
    let mut count = 0;
    let waited = loop {
        count += 1;
        assert_eq!(served.ask(count, "connector.play.echo", &count.to_string()), count.to_string());
        if let Some(event) = waiting.next_within(Duration::from_millis(1)) {
            break event;
        }
    };
    assert_eq!(waited, Event::Response { id: 1, body: b"\"waited\"".to_vec() });
    assert!(start.elapsed() >= WAIT);
    assert!(count > 10, "{count} requests were served while one waited");
}
