package seed

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "seed")
	for _, want := range []Files{
		{MetaData: []byte("a: 1\n"), UserData: []byte("#cloud-config\n"), WeirYAML: []byte("x: y\n")},
		{NetworkConfig: []byte("version: 2\n"), UserData: {}}, // the others go
		{},
	} {
		if err := want.WriteDir(dir); err != nil {
			t.Fatal(err)
		}
		got, err := ReadDir(dir)
		if err != nil || !maps.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

func TestCommandLine(t *testing.T) {
	encode := base64.StdEncoding.EncodeToString
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write([]byte("interfaces: []\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	line := "root=/dev/vda3 quiet weir.slot=a weir.user-data=" + encode([]byte("#cloud-config\n")) +
		` weir.weir.yaml="` + encode(packed.Bytes()) + "\" weir.trial\n"
	got, err := FromCommandLine(line)
	want := Files{UserData: []byte("#cloud-config\n"), WeirYAML: []byte("interfaces: []\n")}
	if err != nil || !maps.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("%v: %q, want %q", err, got, want)
	}
	for _, line := range []string{"weir.meta-data=*", "weir.meta-data=" + encode([]byte("\x1f\x8bnot gzip"))} {
		if got, err := FromCommandLine(line); err == nil {
			t.Errorf("%s: %q, want an error", line, got)
		}
	}
}

const key1, key2 = "ssh-ed25519 AAAAC3Nza one@example.com", "ssh-rsa AAAAB3Nza two@example.com"

func TestParse(t *testing.T) {
	const hash = "$6$salt$abcdefghijklmnop/."
	for name, c := range map[string]struct {
		files map[string]string
		want  Settings
		err   string
	}{
		"nothing": {},
		"meta-data": {
			files: map[string]string{MetaData: "instance-id: i-1\nlocal-hostname: lb1.example.com\npublic-keys: {b: " + key2 + ", a: " + key1 + "}\n"},
			want:  Settings{Hostname: "lb1", Keys: []string{key1, key2}},
		},
		"user-data-over-meta-data": {
			files: map[string]string{MetaData: "local-hostname: one\n", UserData: "#cloud-config\nhostname: two\n"},
			want:  Settings{Hostname: "two"},
		},
		"empty": {files: map[string]string{UserData: "#cloud-config\n", MetaData: ""}},
		"keys-of-who-is-not-root": {
			files: map[string]string{UserData: "#cloud-config\nusers:\n- {name: monitoring, ssh_authorized_keys: [" + key1 + "]}\n" +
				"- {name: guest, sudo: false, ssh_authorized_keys: [" + key1 + "]}\n- {name: admin, sudo: ['ALL=(ALL) ALL'], shell: /bin/sh, ssh_authorized_keys: [" + key2 + "]}\n"},
			want: Settings{
				Keys: []string{key2},
				Ignored: []string{
					"user-data: users: monitoring: there is no user but root, and without sudo that is not for this one",
					"user-data: users: guest: there is no user but root, and without sudo that is not for this one",
					"user-data: users: admin: there is no user but root, who gets the keys",
					"user-data: users: admin: shell: the appliance has no such setting",
				},
			},
		},
		"locked": {
			files: map[string]string{UserData: "#cloud-config\nusers: [{name: root, lock_passwd: true, hashed_passwd: " + hash + "}]\n"},
		},
		"keys-below-keys": {
			files: map[string]string{UserData: "#cloud-config\nntp: {servers: [10.0.0.1], ntp_client: auto}\nchpasswd: {expire: false, list: 'root:x'}\n"},
			want: Settings{NTP: []string{"10.0.0.1"}, Ignored: []string{
				"user-data: chpasswd: list: the appliance has no such setting",
				"user-data: ntp: ntp_client: the appliance has no such setting",
			}},
		},
		"keys-of-everybody": {
			files: map[string]string{UserData: "#cloud-config\nssh_authorized_keys: [" + key1 + "]\n" +
				"users:\n- default\n- {name: root, hashed_passwd: " + hash + ", ssh_authorized_keys: [" + key1 + "]}\n- {name: eve, sudo: x, ssh_authorized_keys: [" + key2 + "]}\n"},
			want: Settings{
				Keys: []string{key1, key2}, Password: hash,
				Ignored: []string{"user-data: users: eve: there is no user but root, who gets the keys"},
			},
		},
		"proxmox": {
			files: map[string]string{UserData: "#cloud-config\nhostname: lb1\nmanage_etc_hosts: true\nfqdn: lb1.lan\nuser: root\npassword: " + hash +
				"\nssh_authorized_keys:\n  - " + key1 + "\nchpasswd:\n  expire: False\nusers:\n  - default\npackage_upgrade: true\n"},
			want: Settings{
				Hostname: "lb1", Keys: []string{key1}, Password: hash,
				Ignored: []string{"user-data: package_upgrade: the appliance has no such setting"},
			},
		},
		"chpasswd": {
			files: map[string]string{UserData: "#cloud-config\nchpasswd: {users: [{name: root, password: " + hash + ", type: hash}, {name: bob, password: x}]}\n"},
			want:  Settings{Password: hash, Ignored: []string{"user-data: chpasswd: user bob: root with a hash is all there is"}},
		},
		"password-in-clear": {
			files: map[string]string{UserData: "#cloud-config\nhostname: lb1\npassword: secret\n"},
			want:  Settings{Hostname: "lb1"}, err: "openssl passwd -6",
		},
		"ntp": {
			files: map[string]string{UserData: "#cloud-config\nntp: {enabled: true, servers: [10.0.0.1], pools: [pool.example.com]}\n"},
			want:  Settings{NTP: []string{"10.0.0.1", "pool.example.com"}},
		},
		"write-files": {
			files: map[string]string{UserData: "#cloud-config\nwrite_files:\n- {path: /etc/weir/weir.yaml, content: 'a: 1'}\n" +
				"- {path: /etc/weir/ca.pem, encoding: b64, content: aGVsbG8=, permissions: '0600'}\n" +
				"- {path: /etc/passwd, content: x}\n- {path: /etc/weir/../shadow, content: x}\n- {path: /etc/weir/a/b, content: x}\n"},
			want: Settings{
				Files: []File{{"/etc/weir/ca.pem", []byte("hello")}, {"/etc/weir/weir.yaml", []byte("a: 1")}},
				Ignored: []string{
					"user-data: write_files: /etc/weir/ca.pem: permissions: the appliance has no such setting",
					"user-data: write_files: /etc/passwd: only files in /etc/weir are written",
					"user-data: write_files: /etc/weir/../shadow: only files in /etc/weir are written",
					"user-data: write_files: /etc/weir/a/b: only files in /etc/weir are written",
				},
			},
		},
		"weir.yaml-over-write-files": {
			files: map[string]string{
				UserData: "#cloud-config\nwrite_files: [{path: /etc/weir/weir.yaml, content: old}]\n", WeirYAML: "new",
			},
			want: Settings{Files: []File{{"/etc/weir/weir.yaml", []byte("new")}}},
		},
		"script": {
			files: map[string]string{UserData: "#!/bin/sh\nreboot\n", WeirYAML: "x"},
			want:  Settings{Files: []File{{"/etc/weir/weir.yaml", []byte("x")}}}, err: "want #cloud-config",
		},
		"key-of-two-lines": {
			files: map[string]string{UserData: "#cloud-config\nhostname: lb1\nssh_authorized_keys: [\"a\\nb\"]\n"},
			want:  Settings{Hostname: "lb1"}, err: "no line of authorized_keys",
		},
		"host-name": {files: map[string]string{MetaData: "local-hostname: 'a b'\n"}, err: "no host name"},
		"no-yaml":   {files: map[string]string{MetaData: "a: b: c\n"}, err: "meta-data: "},
		"list":      {files: map[string]string{UserData: "#cloud-config\n- a\n"}, err: "user-data: "},
	} {
		t.Run(name, func(t *testing.T) {
			files := make(Files)
			for name, text := range c.files {
				files[name] = []byte(text)
			}
			got, err := Parse(files)
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
		})
	}
}

// Whatever is on a disk, reading it ends, and what comes of it fits the files it is
// written to.
func FuzzParse(f *testing.F) {
	f.Add([]byte("local-hostname: a\n"), []byte("#cloud-config\nusers: [default, {name: root}]\n"), []byte("version: 2\nethernets: {eth0: {dhcp4: true}}\n"))
	f.Add([]byte("public-keys: [a]\n"), []byte("#cloud-config\nchpasswd: {users: [{name: root, password: $6$a$b}]}\n"),
		[]byte("version: 1\nconfig: [{type: physical, name: eth0, subnets: [{type: static, address: 10.0.0.1, netmask: 255.0.0.0}]}]\n"))
	f.Fuzz(func(t *testing.T, meta, user, network []byte) {
		s, _ := Parse(Files{MetaData: meta, UserData: user, NetworkConfig: network})
		for _, line := range slices.Concat(s.Keys, s.NTP, []string{s.Hostname, s.Password}) {
			if strings.Contains(line, "\n") {
				t.Errorf("%q has two lines", line)
			}
		}
		if strings.Contains(s.Password, ":") {
			t.Errorf("password %q", s.Password)
		}
		for name, text := range units(s.Links) {
			if strings.ContainsAny(name, "/ \n") {
				t.Errorf("unit %q", name)
			}
			for line := range strings.Lines(text) {
				key, _, ok := strings.Cut(line, "=")
				if !ok && line != "\n" && !strings.HasPrefix(line, "[") || strings.Contains(key, " ") {
					t.Errorf("%s has a line %q", name, line)
				}
			}
		}
	})
}
