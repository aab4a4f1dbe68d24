package stats

import (
	"reflect"
	"regexp"
	"testing"
)

func TestReasonsHaveNames(t *testing.T) {
	name := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	seen := map[string]Reason{}
	for r := range NumReasons {
		if !name.MatchString(r.String()) || r.Help() == "" {
			t.Errorf("reason %d: name %q, help %q", r, r, r.Help())
		}
		if other, ok := seen[r.String()]; ok {
			t.Errorf("reasons %d and %d are both called %q", other, r, r)
		}
		seen[r.String()] = r
	}
	if NumReasons.String() != "invalid" || NumReasons.Help() != "" {
		t.Errorf("a reason that does not exist is called %q", NumReasons)
	}
}

// fill sets every integer in v to a number of its own, from *next up, so that
// a field that somebody forgets shows, whatever it is called.
func fill(t *testing.T, v reflect.Value, next *uint64) {
	switch v.Kind() {
	case reflect.Uint64, reflect.Uint32:
		v.SetUint(*next)
		*next++
	case reflect.Int64:
		v.SetInt(int64(*next))
		*next++
	case reflect.Struct:
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; name != "Generation" && name != "_" {
				fill(t, v.Field(i), next)
			}
		}
	case reflect.Array, reflect.Slice:
		for i := range v.Len() {
			fill(t, v.Index(i), next)
		}
	default:
		t.Fatalf("the test does not know counters of type %v", v.Type())
	}
}

func filled(t *testing.T, backends int, generation uint32, next uint64) *Counters {
	c := &Counters{Sent: make([]Traffic, backends), Backends: make([]Backend, backends)}
	fill(t, reflect.ValueOf(c).Elem(), &next)
	for i := range c.Backends {
		c.Backends[i].Generation = generation
	}
	return c
}

func TestAddToAddsEverything(t *testing.T) {
	c := filled(t, 2, 1, 1)
	var sum Counters
	c.AddTo(&sum)
	if !reflect.DeepEqual(&sum, c) {
		t.Fatalf("added to nothing:\n%+v, want\n%+v", sum, *c)
	}
	c.AddTo(&sum)
	want := &Counters{Sent: make([]Traffic, 2), Backends: make([]Backend, 2)}
	v := reflect.ValueOf(want).Elem()
	next := uint64(1)
	fill(t, v, &next)
	double(v)
	want.Longest = c.Longest // the longer one of the two
	for i := range want.Backends {
		want.Backends[i].Generation = 1
	}
	if !reflect.DeepEqual(&sum, want) {
		t.Errorf("added twice:\n%+v, want\n%+v", sum, *want)
	}
}

func double(v reflect.Value) {
	switch v.Kind() {
	case reflect.Uint64, reflect.Uint32:
		v.SetUint(2 * v.Uint())
	case reflect.Int64:
		v.SetInt(2 * v.Int())
	case reflect.Struct:
		for i := range v.NumField() {
			double(v.Field(i))
		}
	case reflect.Array, reflect.Slice:
		for i := range v.Len() {
			double(v.Index(i))
		}
	}
}

func TestAddToKeepsTheNewerGeneration(t *testing.T) {
	for name, test := range map[string]struct {
		sum, add uint32
		want     Backend
		sent     uint64
	}{
		"newer": {1, 2, Backend{NewFlows: 10, Flows: 3, Generation: 2}, 100},
		"older": {2, 1, Backend{NewFlows: 7, Flows: 2, Generation: 2}, 70},
		"same":  {2, 2, Backend{NewFlows: 17, Flows: 5, Generation: 2}, 170},
	} {
		t.Run(name, func(t *testing.T) {
			sum := Counters{Sent: []Traffic{{Packets: 70}}, Backends: []Backend{{NewFlows: 7, Flows: 2, Generation: test.sum}}}
			add := Counters{Sent: []Traffic{{Packets: 100}}, Backends: []Backend{{NewFlows: 10, Flows: 3, Generation: test.add}}}
			add.AddTo(&sum)
			if got, sent := sum.Backends[0], sum.Sent[0]; got != test.want || sent.Packets != test.sent {
				t.Errorf("%+v and %v sent, want %+v and %d", got, sent, test.want, test.sent)
			}
		})
	}
}

func TestAddToOfFewerBackends(t *testing.T) {
	sum := Counters{Sent: make([]Traffic, 3), Backends: make([]Backend, 3)}
	filled(t, 1, 0, 5).AddTo(&sum)
	if len(sum.Backends) != 3 || sum.Backends[0].Flows == 0 || sum.Backends[1] != (Backend{}) ||
		len(sum.Sent) != 3 || sum.Sent[0].Packets == 0 || sum.Sent[1] != (Traffic{}) {
		t.Errorf("sent %+v, backends %+v", sum.Sent, sum.Backends)
	}
}
