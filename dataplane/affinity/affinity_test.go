package affinity

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// asked is set for a test program that is to make room on a CPU: it cannot be
// undone, so no test does it in the process of others.
const asked = "WEIR_TEST_MAKE_ROOM"

func TestMain(m *testing.M) {
	if os.Getenv(asked) == "" {
		os.Exit(m.Run())
	}
	if err := makeRoom(os.Getenv(asked)); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// makeRoom makes room and writes what has become of it, as far as it is wrong.
func makeRoom(cpus string) error {
	var workers []int
	for _, field := range strings.Fields(cpus) {
		cpu := 0
		if _, err := fmt.Sscan(field, &cpu); err != nil {
			return err
		}
		workers = append(workers, cpu)
	}
	allowed, err := Allowed()
	if err != nil {
		return err
	}
	procs := runtime.GOMAXPROCS(0)
	left, err := MakeRoom(workers)
	if err != nil {
		return err
	}
	if got, want := runtime.GOMAXPROCS(0), procs+len(workers); got != want {
		return fmt.Errorf("GOMAXPROCS %d, want %d", got, want)
	}
	want := slices.DeleteFunc(slices.Clone(allowed), func(cpu int) bool { return slices.Contains(workers, cpu) })
	if !slices.Equal(left, want) {
		return fmt.Errorf("%v are left, want %v", left, want)
	}
	if len(want) == 0 {
		want = allowed
	}
	// Threads that begin later are kept off too, and workers get where they belong.
	const threads = 8
	found := make(chan error)
	for i := range threads {
		go func() {
			runtime.LockOSThread()
			got, err := Allowed()
			if err == nil && !slices.Equal(got, want) {
				err = fmt.Errorf("a thread may run on %v, want %v", got, want)
			}
			if err == nil {
				cpu := workers[i%len(workers)]
				if err = Pin(cpu); err == nil {
					if got, err = Allowed(); err == nil && !slices.Equal(got, []int{cpu}) {
						err = fmt.Errorf("a worker may run on %v, want %d only", got, cpu)
					}
				}
			}
			found <- err
		}()
	}
	for range threads {
		if e := <-found; e != nil {
			err = e
		}
	}
	return err
}

func TestMakeRoom(t *testing.T) {
	allowed, err := Allowed()
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Trim(fmt.Sprint(allowed), "[]")
	for name, workers := range map[string]string{
		"some cpus are left": fmt.Sprint(allowed[0]),
		"two on one":         fmt.Sprint(allowed[0], " ", allowed[0]),
		"none is left":       all,
	} {
		t.Run(name, func(t *testing.T) {
			child := exec.Command(os.Args[0])
			child.Env = append(os.Environ(), asked+"="+workers, "GOMAXPROCS=")
			if out, err := child.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// What the environment says of GOMAXPROCS stays.
func TestMakeRoomAsked(t *testing.T) {
	allowed, err := Allowed()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), asked+"="+fmt.Sprint(allowed[0]), "GOMAXPROCS=3")
	if out, err := child.CombinedOutput(); err == nil || !strings.Contains(string(out), "GOMAXPROCS 3, want 4") {
		t.Errorf("%v: %s", err, out)
	}
}
