// A picture from the camera: the telephone's own camera where there is one, else a window with what the camera sees.

const element = (id) => document.getElementById(id);

const NO_CAMERA = {
  NotAllowedError: "The browser was not allowed to use the camera. Allow it for this page, or choose a file.",
  NotFoundError: "There is no camera here. Choose a file instead.",
  NotReadableError: "Another program has the camera. Close that, or choose a file.",
};

export class Camera {
  #stream = null;
  #facing = "environment";

  /** @param {(file: File) => void} onPicture */
  constructor(onPicture) {
    this.onPicture = onPicture;
    element("camera").addEventListener("click", () => this.open());
    element("camera-cancel").addEventListener("click", () => element("camera-dialog").close());
    element("camera-dialog").addEventListener("close", () => this.#stop());
    element("camera-shoot").addEventListener("click", () => this.#shoot());
    element("camera-turn").addEventListener("click", () => {
      this.#facing = this.#facing === "environment" ? "user" : "environment";
      this.#start();
    });
  }

  open() {
    if (matchMedia("(pointer: coarse)").matches) {
      element("capture").click();
      return;
    }
    element("camera-dialog").showModal();
    this.#start();
  }

  async #start() {
    this.#stop();
    this.#note(null);
    if (!window.isSecureContext || !navigator.mediaDevices?.getUserMedia) {
      this.#note("Browsers lend the camera to secure pages only: open this one over https, or as localhost. Or choose a file.");
      return;
    }
    try {
      const video = { facingMode: this.#facing, width: { ideal: 1920 }, height: { ideal: 1440 } };
      this.#stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
    } catch (error) {
      this.#note(NO_CAMERA[error.name] ?? `The camera does not work: ${error.message}. Choose a file instead.`);
      return;
    }
    if (!element("camera-dialog").open) {
      this.#stop();
      return;
    }
    element("camera-view").srcObject = this.#stream;
    await element("camera-view").play();
    element("camera-shoot").disabled = false;
    const devices = await navigator.mediaDevices.enumerateDevices();
    element("camera-turn").hidden = devices.filter((device) => device.kind === "videoinput").length < 2;
  }

  #note(text) {
    element("camera-note").hidden = text === null;
    element("camera-note").textContent = text ?? "";
    element("camera-view").hidden = text !== null;
    element("camera-shoot").disabled = true;
  }

  #stop() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = null;
    element("camera-view").srcObject = null;
  }

  #shoot() {
    const view = element("camera-view");
    const canvas = document.createElement("canvas");
    canvas.width = view.videoWidth;
    canvas.height = view.videoHeight;
    canvas.getContext("2d").drawImage(view, 0, 0);
    canvas.toBlob(
      (blob) => {
        element("camera-dialog").close();
        this.onPicture(new File([blob], "camera.jpg", { type: "image/jpeg" }));
      },
      "image/jpeg",
      0.95,
    );
  }
}
