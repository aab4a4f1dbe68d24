package demo

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"weir/controlplane/api"
	"weir/lab/traffic"
)

var testNames = map[string]string{"10.0.0.11": "b1", "fd00::11": "b1", "10.0.0.12": "b2", "fd00::12": "b2"}

func apiBackend(service, addr, status string, share float64, packets, bytes uint64, flows int64) api.Backend {
	return api.Backend{
		Service: service, Address: netip.MustParseAddr(addr), Status: status, Share: share,
		Load: api.Load{Traffic: api.Traffic{Packets: packets, Bytes: bytes}, Flows: flows},
	}
}

func TestServiceRows(t *testing.T) {
	service := func(packets, bytes uint64) []api.Service {
		return []api.Service{{Name: serviceDSR, Load: api.Load{Traffic: api.Traffic{Packets: packets, Bytes: bytes}, Flows: 9}}}
	}
	previous := &answers{at: second(0), services: service(100, 1000), backends: []api.Backend{
		apiBackend(serviceDSR, "10.0.0.11", "up", 0, 40, 400, 1),
		apiBackend(serviceDSR, "fd00::11", "up", 0, 10, 100, 1),
		apiBackend(serviceDSR, "10.0.0.12", "up", 0, 50, 500, 1),
	}}
	latest := &answers{at: second(2), services: service(180, 2000), backends: []api.Backend{
		apiBackend(serviceDSR, "10.0.0.11", "up", 0, 60, 800, 2),
		apiBackend(serviceDSR, "fd00::11", "up", 0, 20, 200, 3),
		apiBackend(serviceDSR, "10.0.0.12", "down", 0, 5, 50, 4), // its counters began anew
		apiBackend(serviceDSR, "fd00::12", "up", 0, 0, 0, 0),
		apiBackend(serviceIPIP, "10.0.0.11", "up", 0, 7, 7, 7),
	}}
	want := []serviceRow{{
		name: serviceDSR, load: load{180, 2000, 9, 40, 4000},
		backends: []backendRow{{"b1", "up", load{80, 1000, 5, 15, 2000}}, {"b2", "partly up", load{5, 50, 4, 0, 0}}},
	}}
	if got := serviceRows(previous, latest, testNames); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestShares(t *testing.T) {
	streams := []stream{
		{serviceDSR, netip.MustParseAddrPort("10.0.0.200:80")}, {serviceDSR, netip.MustParseAddrPort("[fd00::200]:80")},
		{serviceIPIP, netip.MustParseAddrPort("10.0.0.201:80")}, {serviceIPIP, netip.MustParseAddrPort("[fd00::201]:80")},
	}
	rows := []api.Backend{
		apiBackend(serviceDSR, "10.0.0.11", "up", 0.75, 0, 0, 0), apiBackend(serviceDSR, "10.0.0.12", "up", 0.25, 0, 0, 0),
		apiBackend(serviceDSR, "fd00::11", "up", 1, 0, 0, 0), apiBackend(serviceDSR, "fd00::12", "down", 0, 0, 0, 0),
		apiBackend(serviceIPIP, "10.0.0.11", "up", 0.5, 0, 0, 0), apiBackend(serviceIPIP, "10.0.0.12", "up", 0.5, 0, 0, 0),
	}
	want := []map[string]float64{{"b1": 0.75, "b2": 0.25}, {"b1": 1, "b2": 0}, {"b1": 0.5, "b2": 0.5}, {"b1": 0.5, "b2": 0.5}}
	if got := sharesOf(streams, testNames, rows); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestTally(t *testing.T) {
	r := newRecorder(2)
	for range 5 {
		r.begin(0)
	}
	if n := r.begin(1); n != 0 {
		t.Errorf("first request of a stream has number %d", n)
	}
	result := func(at float64, took time.Duration, err error) traffic.Result {
		return traffic.Result{Start: second(at), Duration: took, Err: err}
	}
	r.end(request{0, result(1, time.Second, nil)}) // too long ago for its latency
	r.end(request{0, result(6, 2*time.Millisecond, nil)})
	r.end(request{0, result(6, 4*time.Millisecond, nil)})
	r.end(request{0, result(6, time.Second, errTimeout)})
	want := []requestRow{
		{sent: 5, answered: 3, failed: 1, latency: latency{2 * time.Millisecond, 4 * time.Millisecond}}, {sent: 1},
	}
	if got := r.tally(second(10)); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if want[0].waiting() != 1 {
		t.Errorf("%d waiting", want[0].waiting())
	}
}

func TestBrief(t *testing.T) {
	config := `services:
  - name: a
    backends:
      - address: 10.0.0.1
        weight: 1
      - address: 10.0.0.2
      - address: 10.0.0.3
      - address: 10.0.0.4
        weight: 4
  - name: b
    backends:
      - address: 10.0.0.1
      - address: 10.0.0.2
`
	want := strings.Replace(config, "- address: 10.0.0.2\n      - address: 10.0.0.3\n", "...\n", 1)
	if got := brief(config); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestCPU(t *testing.T) {
	const tail = " S 1 7 7 0 -1 4194560 1 2 3 4 150 25 0 0 20 0 1 0 99 0 0"
	for _, test := range []struct {
		stat string
		want time.Duration // -1: an error
	}{
		{"7 (weir)" + tail, 1750 * time.Millisecond},
		{"7 (a) b (c d)" + tail, 1750 * time.Millisecond},
		{"7 (weir) S 1", -1},
		{"7 (weir) S 1 7 7 0 -1 4194560 1 2 3 4 150 x 0", -1},
		{"7 (weir) S 1 7 7 0 -1 4194560 1 2 3 4 -5 1 0", -1},
		{"", -1},
	} {
		got, err := parseCPU(test.stat)
		if (err != nil) != (test.want < 0) || err == nil && got != test.want {
			t.Errorf("%q: %v, %v; want %v", test.stat, got, err, test.want)
		}
	}
}

func FuzzParseCPU(f *testing.F) {
	f.Add("7 (weir) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 0 0 20 0 1 0 99 0 0")
	f.Add("7 (weir) S 1 7 7 0 -1 4194560 1 2 3 4 4294967295 4294967295") // the largest sum
	f.Add(")))")
	f.Fuzz(func(t *testing.T, stat string) {
		if d, err := parseCPU(stat); d < 0 || err != nil && d != 0 {
			t.Errorf("%q: %v, %v", stat, d, err)
		}
	})
}
